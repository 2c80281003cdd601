/* Preloaded into a server that cannot be told where to listen: it listens on the loopback only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

typedef int binder(int, const struct sockaddr *, socklen_t);

int bind(int socket, const struct sockaddr *address, socklen_t length)
{
    binder *inherited = (binder *) dlsym(RTLD_NEXT, "bind");
    union { struct sockaddr any; struct sockaddr_in four; struct sockaddr_in6 six; } local;

    if (address == NULL || length > sizeof local)
        return inherited(socket, address, length);
    memset(&local, 0, sizeof local);
    memcpy(&local, address, length);
    if (local.any.sa_family == AF_INET && local.four.sin_addr.s_addr == htonl(INADDR_ANY))
        local.four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (local.any.sa_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&local.six.sin6_addr))
        local.six.sin6_addr = in6addr_loopback;
    return inherited(socket, &local.any, length);
}
