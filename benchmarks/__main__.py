"""`python -m benchmarks`, from the root of a checkout."""

# The drivers that are measured import this module again: what it needs loads only here.
if __name__ == "__main__":
    from benchmarks.command import app

    app(prog_name="python -m benchmarks")
