"""Plain text into blocks of token ids, and the masking of those blocks."""
