"""Parts of the door to the ALM API: transport, proxies, the token's life."""
