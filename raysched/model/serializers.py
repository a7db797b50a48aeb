"""The names of the ways in which results are written: values of the option `result_serializer`."""

FORMATS = ("pickle", "json", "arrow", "parquet")

COMPRESSED = "compressed/"
"""Stands before the name of a format whose bytes are compressed, as in Prefect."""

RESULT_SERIALIZERS = (*FORMATS, *(COMPRESSED + name for name in FORMATS))
