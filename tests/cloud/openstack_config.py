"""The configuration of a small OpenStack on loopback, as texts; everything of it lies in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PASSWORD = "secret"
POOL_PASSWORD = "a word for the pool, with 'quotes'"

KEYSTONE = """
[DEFAULT]
log_file={folder}/log/keystone.log
[database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/keystone
[token]
provider=fernet
[fernet_tokens]
key_repository={folder}/fernet
[fernet_receipts]
key_repository={folder}/fernet
[credential]
key_repository={folder}/fernet
[identity]
password_hash_rounds=4
"""
CREDENTIALS = """
auth_url=http://127.0.0.1:{keystone}/v3
www_authenticate_uri=http://127.0.0.1:{keystone}/v3
auth_type=password
project_domain_name=Default
user_domain_name=Default
project_name=service
username=service
password={password}
region_name={region}
"""
PLACEMENT = """
[DEFAULT]
log_file={folder}/log/{name}.log
[placement_database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/{name}
[api]
auth_strategy=keystone
[keystone_authtoken]
{credentials}
"""
GLANCE = """
[DEFAULT]
log_file={folder}/log/glance.log
enabled_backends=fs:file
workers=0
[database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/glance
[glance_store]
default_backend=fs
[fs]
filesystem_store_datadir={folder}/images
[os_glance_staging_store]
filesystem_store_datadir={folder}/images/staging
[os_glance_tasks_store]
filesystem_store_datadir={folder}/images/tasks
[paste_deploy]
flavor=keystone
config_file={venv}/etc/glance/glance-api-paste.ini
[keystone_authtoken]
{credentials}
"""
NEUTRON = """
[DEFAULT]
log_file={folder}/log/neutron.log
core_plugin=ml2
service_plugins=
auth_strategy=keystone
transport_url=rabbit://guest:guest@127.0.0.1:{rabbit}/
notify_nova_on_port_status_changes=false
notify_nova_on_port_data_changes=false
dhcp_agent_notification=false
api_paste_config={venv}/etc/neutron/api-paste.ini
state_path={folder}/state
[database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/neutron
[keystone_authtoken]
{credentials}
[oslo_concurrency]
lock_path={folder}/locks
[ml2]
type_drivers=local
tenant_network_types=local
mechanism_drivers=logger
extension_drivers=
"""
NOVA = """
[DEFAULT]
log_file={folder}/log/{name}-all.log
state_path={folder}/state
instances_path={folder}/instances
transport_url=rabbit://guest:guest@127.0.0.1:{rabbit}/{queue}
compute_driver=fake.SmallFakeDriver
host={name}-host
my_ip=127.0.0.1
cpu_allocation_ratio=32
[api]
auth_strategy=keystone
[api_database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/nova_api
[database]
connection=mysql+pymysql://root:any@127.0.0.1:{mariadb}/{name}
[quota]
# Counted when a machine is asked for, not when a cell has got it: a refusal comes at once.
count_usage_from_placement=true
[scheduler]
discover_hosts_in_cells_interval=2
workers=1
[conductor]
workers=1
[oslo_concurrency]
lock_path={folder}/locks
[wsgi]
api_paste_config={venv}/etc/nova/api-paste.ini
[keystone_authtoken]
{credentials}
[service_user]
send_service_user_token=true
{credentials}
[placement]
{credentials}
[glance]
api_servers=http://127.0.0.1:{glance}
[neutron]
{credentials}
[cinder]
{credentials}
[vnc]
enabled=false
[filter_scheduler]
track_instance_changes=false
[oslo_messaging_notifications]
driver=noop
[workarounds]
skip_cpu_compare_at_startup=true
"""
RABBIT = """
listeners.tcp.1 = 127.0.0.1:{rabbit}
loopback_users.guest = true
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
"""


def write_all(folder: Path, venv: Path, ports: Mapping[str, int], region: str) -> None:
    """Write the configuration of all services of one region into ``etc`` of a folder."""
    etc = folder / "etc"
    etc.mkdir(exist_ok=True)
    told = {"folder": folder, "venv": venv, "password": PASSWORD, "region": region, "queue": "", **ports}
    told["credentials"] = CREDENTIALS.format(**told).strip()
    texts = {
        "keystone.conf": KEYSTONE, "placement.conf": PLACEMENT, "glance-api.conf": GLANCE, "neutron.conf": NEUTRON,
        "nova.conf": NOVA, "rabbit.conf": RABBIT,
    }  # fmt: skip
    for name, text in texts.items():
        (etc / name).write_text(text.format(name=name.partition(".")[0], **told))
