"""Other computers: pairing with them, finding them on the network, exchanging chats with them."""
