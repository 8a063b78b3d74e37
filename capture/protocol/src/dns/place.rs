//! Places on the earth: LOC records, RFC 1876.

use std::fmt::{self, Write};

use super::data::{Data, Problem};
use super::name::BoundedText;

/// The equator and the prime meridian, in thousandths of a second of arc (section 2).
const ORIGIN: u32 = 1 << 31;

/// Centimetres from the lowest altitude to the surface of the reference ellipsoid (section 2).
const DEPTH: i64 = 10_000_000;

/// Degrees of latitude and of longitude, in thousandths of a second of arc.
const DEGREE: u32 = 3_600_000;

/// Writes a place as section 3 has it: `42 21 54.000 N 71 6 18.000 W -24.00m 30.00m 10.00m 2.00m`.
pub(super) fn write(data: &mut Data<'_>, text: &mut BoundedText) -> Result<(), Problem> {
    if data.parse_u8()? != 0 {
        return Err(Problem::Malformed);
    }
    let sizes = [data.parse_u8()?, data.parse_u8()?, data.parse_u8()?].map(size);
    let [latitude, longitude, altitude] =
        [data.parse_u32_be()?, data.parse_u32_be()?, data.parse_u32_be()?];
    angle(latitude, 90, ['N', 'S'], text)?;
    text.write_char(' ')?;
    angle(longitude, 180, ['E', 'W'], text)?;
    text.write_char(' ')?;
    metres(i64::from(altitude).saturating_sub(DEPTH), text)?;
    for size in sizes {
        text.write_char(' ')?;
        metres(size.ok_or(Problem::Malformed)?, text)?;
    }
    Ok(())
}

/// Centimetres: a decimal digit and the power of ten that it is multiplied by.
fn size(byte: u8) -> Option<i64> {
    let (digit, power) = (byte >> 4, byte & 0x0f);
    let is_decimal = digit <= 9 && power <= 9;
    is_decimal.then(|| i64::from(digit).saturating_mul(10_i64.saturating_pow(power.into())))
}

fn angle(
    value: u32,
    max_degrees: u32,
    [positive, negative]: [char; 2],
    text: &mut BoundedText,
) -> Result<(), Problem> {
    let distance = value.abs_diff(ORIGIN);
    if distance > max_degrees.saturating_mul(DEGREE) {
        return Err(Problem::Malformed);
    }
    let (degrees, minutes) = (distance / DEGREE, distance / 60_000 % 60);
    let (seconds, thousandths) = (distance / 1000 % 60, distance % 1000);
    let side = if value < ORIGIN { negative } else { positive };
    Ok(write!(text, "{degrees} {minutes} {seconds}.{thousandths:03} {side}")?)
}

fn metres(centimetres: i64, text: &mut BoundedText) -> fmt::Result {
    let sign = if centimetres < 0 { "-" } else { "" };
    let distance = centimetres.unsigned_abs();
    write!(text, "{sign}{}.{:02}m", distance / 100, distance % 100)
}
