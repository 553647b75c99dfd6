"""What a subtask is and how it is worked on; knows no transport."""
