"""What a Keras model is made of: its calls, its channels, and what they cost."""
