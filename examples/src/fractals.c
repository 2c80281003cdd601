/*
 * Draws the Julia set of z -> z*z + c and writes it as a PPM image.
 *
 *   cc src/fractals.c -o bin/fractals -lm
 *   bin/fractals -q 0.382 -d 900 -m 3 -o golden.ppm
 *
 *   -q ANGLE   where c lies: just outside the main cardioid of the Mandelbrot set, at this part of a turn (0..1).
 *              Near a fraction n/k the picture has k-fold spirals; 0.382, the golden angle, is the least regular.
 *   -d DEPTH   iterations before a point counts as inside
 *   -m SIZE    the image is SIZE * 160 pixels wide and high
 *   -o OUTPUT  the file to write; standard output without it
 */
#ifdef __GNUC__
#pragma GCC optimize("O2") /* the plain `cc` line above shall be fast as well */
#endif

#include <complex.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PI 3.14159265358979323846
#define UNIT 160       /* pixels per -m */
#define SAMPLES 3      /* per pixel and direction: the filaments are finer than a pixel */
#define OUTSIDE 1.013  /* how far c is from the cardioid: 1 is on it, where nothing escapes in time */
#define ESCAPE 4096.0  /* squared radius; large, so that the smooth count has no visible steps */

struct colour { double red, green, blue; };

static int fail(const char *what) {
    fprintf(stderr, "fractals: %s\n", what);
    return 1;
}

/* A cosine palette that starts dark; `hue` turns it, so every angle has its own colours. */
static struct colour palette(double t, double hue) {
    double light = 0.5 - 0.5 * cos(PI * fmin(1.0, t * 2.2));
    struct colour c = {
        light * (0.52 + 0.48 * cos(2 * PI * (t * 1.1 + hue + 0.00))),
        light * (0.46 + 0.40 * cos(2 * PI * (t * 1.0 + hue + 0.30))),
        light * (0.54 + 0.46 * cos(2 * PI * (t * 0.9 + hue + 0.62))),
    };
    return c;
}

/* The colour of one point: how long it takes to escape, darkened close to the set by the estimated distance. */
static struct colour sample(double x, double y, double cx, double cy, long depth, double hue, double pixel) {
    double dx = 1, dy = 0, size = x * x + y * y, nearest = size;
    long n = 0;
    /* A derivative that vanishes means that the orbit is caught for good: no need to go to the full depth. */
    while (size < ESCAPE && n < depth && dx * dx + dy * dy > 1e-20) {
        double next = 2 * (x * dx - y * dy);
        dy = 2 * (x * dy + y * dx);
        dx = next;
        next = x * x - y * y + cx;
        y = 2 * x * y + cy;
        x = next;
        size = x * x + y * y;
        nearest = fmin(nearest, size);
        n++;
    }
    if (size < ESCAPE) { /* inside, the orbit's closest approach to 0 shades what would be one flat black */
        struct colour c = palette(0.12 + 0.9 * sqrt(nearest), hue + 0.5);
        c.red *= 0.55, c.green *= 0.55, c.blue *= 0.55;
        return c;
    }
    double smooth = n + 1 - log2(0.5 * log(size) / log(2.0));
    double distance = sqrt(size / (dx * dx + dy * dy)) * 0.5 * log(size);
    struct colour c = palette(log1p(fmax(0.0, smooth)) * 0.34 - 0.28, hue);
    double glow = 0.12 + 0.88 * fmin(1.0, sqrt(distance / (1.2 * pixel)));
    c.red *= glow, c.green *= glow, c.blue *= glow;
    return c;
}

static unsigned char byte_of(double sum) {
    double mean = sum / (SAMPLES * SAMPLES);
    return (unsigned char)(255.0 * pow(fmin(1.0, fmax(0.0, mean)), 1 / 1.5) + 0.5);
}

static int draw(FILE *file, double angle, long depth, long side) {
    double complex turn = cexp(2 * PI * I * angle);
    double complex c = (turn / 2 - turn * turn / 4) * OUTSIDE;
    double half = 1.5, step = 2 * half / (double)(side * SAMPLES);
    /* A Julia set lies askew at most angles: turning the frame by the fixed point's direction stands it upright. */
    double complex frame = cexp(I * carg(csqrt(1 - 4 * c)) / 2);
    unsigned char *row = malloc((size_t)side * 3);
    if (row == NULL) return fail("no memory");
    fprintf(file, "P6\n%ld %ld\n255\n", side, side);
    for (long v = 0; v < side; v++) {
        for (long u = 0; u < side; u++) {
            struct colour sum = {0, 0, 0};
            for (int k = 0; k < SAMPLES * SAMPLES; k++) {
                double complex z = (-half + step * (u * SAMPLES + k % SAMPLES + 0.5)
                                    + I * (half - step * (v * SAMPLES + k / SAMPLES + 0.5))) * frame;
                struct colour one = sample(creal(z), cimag(z), creal(c), cimag(c), depth, angle * 2.6, step * SAMPLES);
                sum.red += one.red, sum.green += one.green, sum.blue += one.blue;
            }
            row[3 * u] = byte_of(sum.red);
            row[3 * u + 1] = byte_of(sum.green);
            row[3 * u + 2] = byte_of(sum.blue);
        }
        if (fwrite(row, 3, (size_t)side, file) != (size_t)side) break;
    }
    free(row);
    return ferror(file) ? fail("the image could not be written") : 0;
}

int main(int argc, char **argv) {
    double angle = 0.382;
    long depth = 900, size = 3;
    const char *output = NULL;
    int option;
    while ((option = getopt(argc, argv, "q:d:m:o:")) != -1) {
        switch (option) {
        case 'q': angle = atof(optarg); break;
        case 'd': depth = atol(optarg); break;
        case 'm': size = atol(optarg); break;
        case 'o': output = optarg; break;
        default: return fail("usage: fractals [-q ANGLE] [-d DEPTH] [-m SIZE] [-o OUTPUT]"), 2;
        }
    }
    if (optind < argc || depth < 1 || size < 1 || size > 100) return fail("-d is at least 1, -m is 1 to 100"), 2;
    FILE *file = output == NULL ? stdout : fopen(output, "wb");
    if (file == NULL) return fail(strerror(errno));
    int status = draw(file, angle, depth, size * UNIT);
    if (fclose(file) != 0 && status == 0) status = fail(strerror(errno));
    return status;
}
