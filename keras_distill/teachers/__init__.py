"""Teachers: whatever answers what is known of a batch."""
