"""Several CTs of one patient: the same lesion found again, and how much it has grown."""
