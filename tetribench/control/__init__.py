"""The control plane (paper section 3.2): where requests go first, and what everyone knows of everyone's load."""
