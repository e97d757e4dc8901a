"""The exercises, one a file: the right answer, the cases, the mistakes people make, the check."""
