// SPDX-License-Identifier: MIT
/* cache_folder.h: where the program keeps what it would otherwise make again. */
#ifndef KVANT_APP_CACHE_FOLDER_H
#define KVANT_APP_CACHE_FOLDER_H

/* $KVANT_CACHE, else $XDG_CACHE_HOME/kvant, else $HOME/.cache/kvant; NULL: nothing is kept (KVANT_CACHE is empty, or none is set).
 * Nothing is made there. Valid until the next call. */
const char *cache_folder(void);

#endif
