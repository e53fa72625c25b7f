# Draws the storm: gnuplot -e "csv='storm.csv'; svg='storm.svg'" storm.gnuplot
set terminal svg size 960,720 dynamic background rgb 'white' font 'sans-serif,13'
set output svg
set datafile separator ','
set datafile missing NaN
set multiplot layout 2,2 title 'One cold image, many runners at once; how large it is at which number of runners is in the table'

servers = 'dockgate docker-registry nginx'
colors = '#1b7837 #2166ac #b35806'
server(i) = word(servers, i)
# A row of another server counts as missing, so that lines go on past it; so does a case in which it did not happen.
of(i, column) = strcol('server') eq server(i) && strlen(strcol(column)) > 0 ? column(column) : NaN

set key below horizontal
set grid ytics lc rgb '#dddddd'
set logscale xy
set xtics (1, 10, 100, 500)
set xrange [0.8:650]
set xlabel 'runners'
set style data linespoints

set title 'Bytes from the upstream ÷ bytes of the image'
set yrange [0.5:*]
plot for [i=1:3] csv using (column('runners')):(of(i, 'ratio')) title server(i) lw 2 pt 7 ps 0.7 lc rgb word(colors, i)

set yrange [*:*]
set title 'Until the last byte of the image, p99, seconds'
plot for [i=1:3] csv using (column('runners')):(of(i, 'completion_p99')) title server(i) lw 2 pt 7 ps 0.7 lc rgb word(colors, i)

set title 'To the first byte of a blob, p99, seconds'
plot for [i=1:3] csv using (column('runners')):(of(i, 'first_byte_p99')) title server(i) lw 2 pt 7 ps 0.7 lc rgb word(colors, i)

set title 'Memory, the most that was resident, MiB'
plot for [i=1:3] csv using (column('runners')):(of(i, 'memory_bytes') / 1048576) title server(i) lw 2 pt 7 ps 0.7 lc rgb word(colors, i)

unset multiplot
