"""Network architectures shared by inference and training; the only library files that import torch at the top."""
