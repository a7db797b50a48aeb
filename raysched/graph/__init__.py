"""Groups of task runs and the edges between them: recording, checking, drawing."""
