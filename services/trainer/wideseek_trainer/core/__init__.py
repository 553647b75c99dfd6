"""What training decides: assembly, rewards, advantages, the loss, the order of commits. No transport in here."""
