"""The one impure loop, and the ports it reaches the world by."""
