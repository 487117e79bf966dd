"""The command line, running notebooks, planning, publishing."""
