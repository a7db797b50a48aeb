"""The code beside the user's function: runs, times, catches and reports."""
