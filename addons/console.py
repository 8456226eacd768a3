from mitmgate.console import Console

addons = [Console()]
