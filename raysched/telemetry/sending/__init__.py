"""Requests on their way to collectors: where to, by what, how, and again."""
