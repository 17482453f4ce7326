"""xDS streams: versions, nonces, ACK and NACK; nothing of what the resources mean."""
