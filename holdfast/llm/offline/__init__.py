"""The parts of `offline/extractive`: read a request, choose tools, fill arguments, quote. Only it uses them."""
