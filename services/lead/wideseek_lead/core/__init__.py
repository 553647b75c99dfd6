"""What an episode is and how it runs, free of transports."""
