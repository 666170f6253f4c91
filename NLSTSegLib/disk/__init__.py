"""Files and folders that know no CT."""
