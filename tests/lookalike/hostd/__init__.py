"""What plays the ESXi host's management daemon in the look-alike: see ../README.md."""
