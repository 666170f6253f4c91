"""Several commands in one."""
