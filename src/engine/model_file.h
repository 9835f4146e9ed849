// SPDX-License-Identifier: MIT
/* model_file.h: what loading asks of a model file before any weight is read. */
#ifndef KVANT_ENGINE_MODEL_FILE_H
#define KVANT_ENGINE_MODEL_FILE_H

#include "file/gguf.h"

/* KVANT_OK when the file describes a text decoder, of whatever family. KVANT_EUNSUPPORTED for vision projectors, models whose
 * decoder attends to images, and files that say they are something else than a model: the sentence names what it is and lists
 * the architectures that work. */
kvant_status kvant_model_file_check_kit(const kvant_gguf *f, kvant_error *err);

#endif
