/* A library that several services use. */
#include "truth.h"

PROBED int shared_work(int x)
{
    return x ^ 0x5a;
}
