"""The version that jobctl, chart and workers share."""

__version__ = "0.1.0"
