"""Tables, model cards."""
