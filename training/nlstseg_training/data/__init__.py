"""From the files of a data set to the training cache and its split."""
