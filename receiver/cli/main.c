/* The vmferry program; everything is in app.c, so that tests can link it. */
#include "receiver/cli/app.h"

int main(int argc, char **argv)
{
    return app_main(argc, argv);
}
