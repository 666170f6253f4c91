"""The report of an evaluation; imports no evaluation."""
