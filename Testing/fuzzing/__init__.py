"""Spoiled files: all are read or refused in one line, with little memory."""
