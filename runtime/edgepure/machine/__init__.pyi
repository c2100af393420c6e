from .packages import extensions as extensions
from .packages import installed_package as installed_package
from .packages import package_version as package_version
from .processor import cpu_name as cpu_name
from .processor import usable_cores as usable_cores
from .shortage import shortage as shortage
