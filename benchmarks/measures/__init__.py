"""What is measured. Each file has one coroutine, which adds what it finds to the Series that it is given."""
