from mitmgate.views import Views

addons = [Views()]
