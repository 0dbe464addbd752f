"""ltr: experiments for recognition when data is unfair."""

__version__ = "0.1.0"
