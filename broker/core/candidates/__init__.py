"""Who may serve a call, how each looks to it, and how well each suits."""
