"""JupyterLab as medkit opens it: this machine only, a random token, and no dialog over the page.

    jupyter lab --config=data/lab/jupyter_server_config.py

`page_config.json` beside this file says that there is nothing to build; `overrides.json` turns the news question off.
"""

from pathlib import Path

from jupyter_client import KernelManager

c = get_config()  # noqa: F821

c.ServerApp.ip = "127.0.0.1"
c.ServerApp.allow_remote_access = False
c.ServerApp.allow_root = True  # in a container the only user is root
c.LabApp.app_settings_dir = str(Path(__file__).resolve().parent)
c.LabApp.news_url = None
c.ServerApp.log_level = c.LabApp.log_level = "WARN"  # what is left is the address to open
c.LabApp.extension_manager = "readonly"
if "transport_encryption" in KernelManager.class_trait_names():
    c.KernelManager.transport_encryption = "auto"
