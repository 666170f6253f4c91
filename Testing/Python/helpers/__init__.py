"""What tests share: synthetic CTs, exact-answer networks, writers of files, child processes, MRML, caches."""
