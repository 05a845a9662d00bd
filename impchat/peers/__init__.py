"""Other computers: pairing, discovery in the network, and exchange of conversations."""
