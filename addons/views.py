from mitmgate.views import Views

addons = [Views("mitmgate.views.alone")]  # it may stand beside gateway.py, which has one too
