// SPDX-License-Identifier: MIT
/* calibration.h: the text that models are calibrated with (private to src/engine). */
#ifndef KVANT_ENGINE_CALIBRATION_H
#define KVANT_ENGINE_CALIBRATION_H

extern const char kvant_calibration_text[];

#endif
