"""Load generators side by side, each before a server that knows when it got a request and when it wrote each chunk."""
