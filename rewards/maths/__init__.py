"""What an answer in mathematics says: read from text, and compared by value."""
