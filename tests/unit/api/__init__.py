"""Parts of the control plane that need no broker."""
