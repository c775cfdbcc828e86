"""edge-distil: distil BERT encoders, ship them to phones and edge CPUs, and check what was shipped."""

__version__ = "0.1.0"
